// Package circuit is the breaker of one endpoint as a state machine: when it is
// taken for sick, how it is asked whether it is well, and how it comes back.
//
//	closed ──trips──▶ open ──time──▶ half-open ──3 good probes──▶ ramping ──▶ closed
//	                   ▲                 │ a probe fails             │ fails twice in a step
//	                   └─────────────────┴───────────────────────────┘ for longer each time
//
// Closed: everything that a healthy endpoint gets. It trips on failures in a
// row: 5 server errors, 3 gateway errors (502, 503, 504) or 3 failures to
// connect; with these defaults also when half of at least 10 requests within
// [DefaultWindow] failed. Open: nothing until the ejection is over. Half-open:
// one real request at a time as a probe. Ramping: 5, 15, 35, then 60 % of its
// share; every step wants three good answers and a second, or one good answer
// in ten seconds where there is little traffic. The first failure starts the
// step again, a second one ejects.
//
// An ejection lasts the base time, doubled with each relapse, at most
// [MaxEjection]; relapses are forgiven one by one for every such time that the
// endpoint stays closed. An answer to what was sent before the state changed
// says nothing about the state now, and does not count.
//
// It owns no clock and no lock, and does not know how many others are ejected:
// waypoint/balance, its only caller, gives leave to eject. Pure.
package circuit
