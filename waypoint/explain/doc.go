// Package explain says why requests go where they go, and where one would go
// that nobody has sent (`ambit why`, `ambit can`).
//
// It owns the words for people. It refuses to decide by itself: it asks the very
// functions that decide on requests. Called by waypoint/exchange for the stories
// of its requests, and by waypoint's root for its pages.
package explain
