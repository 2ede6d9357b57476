"""The servers of one installation: who they are, who does what alone, what they tell each other."""
