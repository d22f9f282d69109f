package plugin

import (
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
)

// FuzzParse: whatever the runtime gives, the plugin reads it or says why not, and
// a pod without a name is never one that may pass by.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"cniVersion":"1.0.0","name":"n","type":"ambit-cni","prevResult":{"cniVersion":"1.0.0","ips":[{"address":"10.1.2.3/24"}]}}`), "K8S_POD_NAME=a;K8S_POD_NAMESPACE=b")
	f.Add([]byte(`{"prevResult":{}}`), "IgnoreUnknown=1;K8S_POD_NAME=")
	f.Fuzz(func(t *testing.T, conf []byte, args string) {
		c, pod, err := parse(&skel.CmdArgs{StdinData: conf, Args: args})
		if err != nil {
			return
		}
		if c == nil || c.ExcludeNamespaces == nil {
			t.Errorf("configuration %+v", c)
		}
		_ = waits(c, pod)
	})
}
