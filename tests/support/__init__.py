"""What the tests stand on: probes, users, trees and the search for what a test left behind."""
