package match

import "github.com/ambit-mesh/ambit/internal/urlpath"

// Normalize gives the form in which Find and policies compare a path, and which
// is sent on. A request whose path has none is answered 400.
func Normalize(path string) (string, error) { return urlpath.Normalize(path) }
