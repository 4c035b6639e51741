"""Finds the first wrong node of a wrong engine, and makes models and inputs to try fxtrt on."""
