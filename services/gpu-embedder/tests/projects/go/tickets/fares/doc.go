// Package fares knows what a ticket costs.
package fares
