"""The one place that turns a configuration into a search."""

from configs.schema import SearchConfig
from games.game import Game
from search.contract import Search
from search.gumbel import GumbelSearch
from search.minimax import MinimaxSearch
from search.puct import PuctSearch


def make_search(config: SearchConfig, game: Game, games: int) -> Search:
    """Return a search for up to `games` games of `game` at a time, with its trees allocated."""
    if config.algorithm == "gumbel":
        return GumbelSearch(config, game, games=games)
    if config.algorithm == "minimax":
        return MinimaxSearch(config, game, games=games)
    return PuctSearch(config, game, games=games)
