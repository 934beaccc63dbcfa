"""Corpora: their descriptions, their download, their readers, and generators of similar ones."""
