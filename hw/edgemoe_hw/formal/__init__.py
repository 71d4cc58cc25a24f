"""What is proved of the RTL: units with free inputs, what their surroundings promise, and what must then hold."""
