"""What a person with a GPU runs (`make gpu`): whether the code does on it what it does on a CPU, and how fast."""
