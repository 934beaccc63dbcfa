"""Tests of the sparse products."""
