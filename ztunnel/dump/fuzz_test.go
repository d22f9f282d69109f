package dump

import "testing"

// FuzzLocal: a file in place of a control plane is read or refused.
func FuzzLocal(f *testing.F) {
	f.Add([]byte("workloads:\n- {uid: a, name: b, namespace: c, serviceAccount: d, workloadIps: [10.0.0.1], protocol: HBONE}\n"))
	f.Add([]byte("policies:\n- {name: a, namespace: b, action: DENY, scope: Namespace}\nservices: [{}]\n"))
	f.Fuzz(func(t *testing.T, text []byte) { ParseLocal(text) })
}
