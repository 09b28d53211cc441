"""Games of hex as other programs and sites write them: .trmph, HexWorld links and SGF, read and written."""
