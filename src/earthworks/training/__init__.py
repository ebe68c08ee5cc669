"""The engine that runs and resumes any training: loop, checkpoint, schedule, optimizer, precision."""
