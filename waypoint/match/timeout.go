package match

import (
	"strconv"
	"time"
)

// Timeouts bounds the whole exchange and each try of it; zero is no bound. A
// gRPC client's own deadline bounds both.
func (d Decision) Timeouts(q *Request) (whole, try time.Duration) {
	if rule := d.Spec(); rule != nil {
		whole, try = rule.RequestTimeout, rule.BackendTimeout
	}
	if text, ok := q.header("Grpc-Timeout"); ok {
		if deadline, ok := grpcTimeout(text); ok {
			whole = shorter(whole, deadline)
		}
	}
	return whole, shorter(try, whole)
}

// shorter is the smaller of two bounds, of which zero is none.
func shorter(a, b time.Duration) time.Duration {
	if a == 0 || b == 0 {
		return a + b
	}
	return min(a, b)
}

var grpcUnits = map[byte]time.Duration{
	'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond, 'u': time.Microsecond, 'n': time.Nanosecond,
}

// grpcTimeout reads at most eight digits and a unit (gRPC over HTTP/2). One
// that has passed is the shortest there is, since zero is no bound.
func grpcTimeout(s string) (time.Duration, bool) {
	if len(s) < 2 || len(s) > 9 {
		return 0, false
	}
	unit, ok := grpcUnits[s[len(s)-1]]
	n, err := strconv.ParseUint(s[:len(s)-1], 10, 32)
	if !ok || err != nil {
		return 0, false
	}
	if n > uint64(1<<63-1)/uint64(unit) {
		return 1<<63 - 1, true
	}
	return max(time.Duration(n)*unit, 1), true
}
