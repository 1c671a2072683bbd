"""Replies as objects: asked for, read and repaired."""
