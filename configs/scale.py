"""What `tamen scale` may change of a run that goes on."""

from configs.schema import PerMachine, Section


class Scale(Section):
    """How many there are on each machine: of a run `actors.count` and `inference.servers`."""

    actors_per_machine: PerMachine = "auto"
    servers_per_machine: PerMachine = "auto"
