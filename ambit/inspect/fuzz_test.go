package inspect

import "testing"

// FuzzDump: what a proxy answers is read or refused.
func FuzzDump(f *testing.F) {
	f.Add([]byte(`{"workloads":{},"services":[],"policies":[],"certificates":[],"workloadState":{}}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		Parse(in)
		ParseWaypoint(in)
	})
}
