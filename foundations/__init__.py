"""The ground floor: errors, checks of options, files, the cache folder and progress. It imports nothing of ours."""
