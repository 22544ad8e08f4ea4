"""Reads the tables of a work directory: statistics, names, leaderboard, merged runs."""
