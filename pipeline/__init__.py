"""Files of games become a trained model: read, cut into positions, shuffled, fitted; resumable at each step."""
