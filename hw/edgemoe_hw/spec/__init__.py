"""The contract between RTL, compiler, simulators and host: plain Python, standard library only."""
