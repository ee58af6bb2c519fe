"""What every room stands on: the store of artefacts, video files, models, progress, the machine."""
