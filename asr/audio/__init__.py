"""Sound on its way in: files, pipes, arrays and microphones become blocks of samples, and those mel features."""
