// Command ambit-cni is the CNI plugin that the container runtime runs for each
// pod; cni/install puts it on the node and into the chain.
package main

import (
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/ambit-mesh/ambit/cni/plugin"
)

func main() {
	skel.PluginMainFuncs(plugin.Funcs(), version.All, "ambit-cni: asks the node agent of the ambit mesh before a pod starts")
}
