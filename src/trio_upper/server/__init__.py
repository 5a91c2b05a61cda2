"""The server: accepts, admits, answers, drains."""
