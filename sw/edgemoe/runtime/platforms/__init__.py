"""What a driver can stand on: simulation, PYNQ, serial line, nothing."""
