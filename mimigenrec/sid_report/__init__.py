"""Are these SIDs worth training on? Figures, verdicts and pictures of an index."""
