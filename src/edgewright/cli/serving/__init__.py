"""Commands that begin with `edgewright serve WORD`; each module holds one, as the object `command`."""
