"""Files of games become a trained model: read, checked, cut into positions, shuffled, fitted; resumable at each step."""
