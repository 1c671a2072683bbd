"""Structured output: ask for an object, parse the reply, repair it once."""
