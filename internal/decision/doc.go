// Package decision owns what a proxy decided lately: the short id of each
// decision, a bounded memory of them, and the story of one in a form for people
// and for programs.
//
// It refuses to decide, and to work out an explanation that nobody asks for: a
// proxy keeps values that do not change anymore, and tells them as a Story when
// it is asked (`ambit why`). Proxies call Ring.NewID when a request or
// connection begins and Ring.Keep when it has ended; internal/admin serves the
// pages.
package decision
