"""The commands of a person: groups of `tamen`'s verbs, one a file, which import what they run only when it runs."""
