// Package ask puts questions to the parts of a running mesh: what was decided
// on a request and why, what would be decided, how far each proxy is with the
// configuration, and whether what was applied is served.
//
// It owns who is asked and what the answers mean together. It refuses to know
// how a part is reached (ambit/reach) and what a user reads (ambit/command).
package ask
