"""Programs that others wrote, behind sockets and pipes: kept alive, fed with games, and read with distrust."""
