"""How many of the newest rows are kept to draw from."""

from configs.schema import ReplayConfig


def window_rows(total_rows: int, config: ReplayConfig) -> int:
    """Return the size of the window after `total_rows` rows were ever inserted.

    With m = min_rows, e = window_exponent and g = window_growth,

        window(n) = m * (1 + g * ((n / m)^e - 1) / e)        for n > m

    and everything for n ≤ m. At n = m the window grows by g rows with every row, and ever slower after that:
    old games are of weak play, yet a window that stayed small would forget what is rare. e = 1 and g = 1 keep
    everything. It never exceeds the rows there are, nor `capacity_rows`.

    This is KataGo's power law (Wu 2019, arXiv 1902.10565), there with m = 250,000, e = 0.75, g = 0.4.
    """
    least, exponent = config.min_rows, config.window_exponent
    if total_rows <= least:
        return min(total_rows, config.capacity_rows)
    growth = config.window_growth * ((total_rows / least) ** exponent - 1) / exponent
    return min(total_rows, config.capacity_rows, int(least * (1 + growth)))
