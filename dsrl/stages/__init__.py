"""The method, one folder a stage."""
