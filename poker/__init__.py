"""Hands, public trees and counterfactual regret minimisation."""
