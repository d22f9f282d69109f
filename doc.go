// Package ambit is the root of the ambit service mesh; it holds only the tests
// that keep the house in order. See README.md for the map.
package ambit
