"""Random game texts: what each form can say, whether or not anybody could have played it."""

from hypothesis import strategies as st

from games.formats.record import WON_BY, Form, GameText, Word

TRMPH_WORDS = (Word.SWAP_PIECES,)


@st.composite
def game_texts(draw: st.DrawFn, form: Form) -> GameText:
    """A game text of `form`; a board has up to 60 columns, so that some have two letters."""
    width = draw(st.integers(1, 60))
    height = width if form == "trmph" else draw(st.integers(1, 60))
    words = TRMPH_WORDS if form == "trmph" else tuple(Word)
    move = st.integers(0, width * height - 1) | st.sampled_from(words)
    moves = tuple(draw(st.lists(move, max_size=30)))
    winners = {WON_BY[Word(move)] for move in moves if move in WON_BY}
    if len(winners) > 1:
        moves = tuple(move for move in moves if WON_BY.get(move, 0) == 0)  # pyright: ignore
        winners = {0}
    winner = winners.pop() if winners else draw(st.sampled_from([0, 1, None]))
    return GameText(form, width, height, moves, winner)
