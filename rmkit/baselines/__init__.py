"""Methods to compare with. Each writes `enhanced/<name>/<clip>.mp4`, one clip after another."""
