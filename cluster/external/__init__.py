"""Engines behind sockets: kept alive, played with, and imitated."""
