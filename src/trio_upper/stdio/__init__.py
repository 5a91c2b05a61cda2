"""Standard input and output as Trio streams."""
