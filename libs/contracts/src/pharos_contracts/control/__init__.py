"""What owners and operators ask of jobs that exist already, and of dead letters."""
