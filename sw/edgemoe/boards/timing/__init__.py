"""Static timing of a mapped netlist: an estimate of the clock before anything is placed."""
