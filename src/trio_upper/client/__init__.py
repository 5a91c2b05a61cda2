"""The client: connects, sends, and knows to the byte what it is owed."""
