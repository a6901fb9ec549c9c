"""Tests of the page of one run."""
