"""Methods of acquisition against each other: a study of campaigns, its tables and curves."""
