"""Planning profiles as data: what a GPU of a given size or a CPU gets. Installed as `autoseg.profiles`."""
