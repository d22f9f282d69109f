// Package plugin owns the CNI plugin, the last of the node's chain: before a
// pod's containers start it asks the node agent, and hands the earlier
// plugins' result through unchanged.
//
// The decision is the agent's. The plugin itself knows only the namespaces
// that never wait; outside them it fails closed: while the agent is away no
// pod starts, and the error, which the kubelet shows as an event on the pod,
// says why. It refuses to talk to Kubernetes and to touch a network namespace.
// cni/cmd/ambit-cni is its only caller.
package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/ambit-mesh/ambit/cni/event"
)

// Type is the plugin's name in a network configuration and of its binary.
const Type = "ambit-cni"

// DefaultExclude are the namespaces whose pods start without the agent, or it
// could never start itself.
var DefaultExclude = []string{"kube-system", "istio-system"}

// Conf is the plugin's entry in the network configuration.
type Conf struct {
	types.PluginConf
	// AgentSocket is where the agent listens; empty is event.DefaultSocket.
	AgentSocket string `json:"agentSocket,omitempty"`
	// ExcludeNamespaces start without the agent; absent is DefaultExclude.
	ExcludeNamespaces []string `json:"excludeNamespaces"`
}

// How long the plugin waits: the kubelet allows a sandbox two minutes and
// then, or after an error, begins anew.
const (
	absentWait = 5 * time.Second
	answerWait = 40 * time.Second
	delWait    = 2 * time.Second
)

// podArgs is what the runtime says of the pod.
type podArgs struct {
	types.CommonArgs
	K8S_POD_NAME, K8S_POD_NAMESPACE, K8S_POD_UID types.UnmarshallableString
}

// Funcs are the plugin's commands. CHECK, GC and STATUS find nothing to do: the
// agent itself looks after the rules, and a STATUS that failed while the agent
// is away would make the node unready and keep the agent away.
func Funcs() skel.CNIFuncs {
	nothing := func(*skel.CmdArgs) error { return nil }
	return skel.CNIFuncs{Add: add, Del: del, Check: nothing, GC: nothing, Status: nothing}
}

func add(args *skel.CmdArgs) error {
	conf, pod, err := parse(args)
	if err != nil {
		return err
	}
	if conf.PrevResult == nil {
		return types.NewError(types.ErrInvalidNetworkConfig, "ambit-cni must be the last of a chain of plugins", "there is no prevResult")
	}
	if waits(conf, pod) {
		if err := ask(args, conf, pod); err != nil {
			return err
		}
	}
	return types.PrintResult(conf.PrevResult, conf.CNIVersion)
}

// waits says whether the agent is asked at all. What is no pod is not ours.
func waits(conf *Conf, pod podArgs) bool {
	return pod.K8S_POD_NAME != "" && !slices.Contains(conf.ExcludeNamespaces, string(pod.K8S_POD_NAMESPACE))
}

func ask(args *skel.CmdArgs, conf *Conf, pod podArgs) error {
	result, err := current.NewResultFromResult(conf.PrevResult)
	if err != nil {
		return types.NewError(types.ErrDecodingFailure, "reading the earlier plugins' result", err.Error())
	}
	ctx, cancel := context.WithTimeout(context.Background(), answerWait)
	defer cancel()
	err = event.Client{Socket: conf.AgentSocket, Wait: absentWait}.Add(ctx, event.Add{
		Netns:        args.Netns,
		PodName:      string(pod.K8S_POD_NAME),
		PodNamespace: string(pod.K8S_POD_NAMESPACE),
		PodUID:       string(pod.K8S_POD_UID),
		ContainerID:  args.ContainerID,
		IPs:          addresses(result),
	})
	if err == nil {
		return nil
	}
	why := "it may not start before the agent has put it into the mesh or has said that it is not of it"
	if errors.Is(err, event.ErrNoAgent) {
		why = "it waits for the agent, so that it never starts outside the mesh"
	}
	return types.NewError(types.ErrTryAgainLater,
		fmt.Sprintf("pod %s/%s waits: %v", pod.K8S_POD_NAMESPACE, pod.K8S_POD_NAME, err), why)
}

func addresses(r *current.Result) []event.IP {
	var ips []event.IP
	for _, ip := range r.IPs {
		// An address of an interface on the node's side is none of the pod's.
		if i := ip.Interface; i != nil && *i >= 0 && *i < len(r.Interfaces) && r.Interfaces[*i].Sandbox == "" {
			continue
		}
		e := event.IP{Address: ip.Address.String()}
		if ip.Gateway != nil {
			e.Gateway = ip.Gateway.String()
		}
		ips = append(ips, e)
	}
	return ips
}

// del tells the agent, but never fails: a pod must be able to go.
func del(args *skel.CmdArgs) error {
	conf, pod, err := parse(args)
	if err != nil || !waits(conf, pod) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), delWait)
	defer cancel()
	_ = event.Client{Socket: conf.AgentSocket}.Del(ctx, event.Del{
		ContainerID: args.ContainerID, PodName: string(pod.K8S_POD_NAME), PodNamespace: string(pod.K8S_POD_NAMESPACE),
	})
	return nil
}

func parse(args *skel.CmdArgs) (*Conf, podArgs, error) {
	conf := &Conf{}
	if err := json.Unmarshal(args.StdinData, conf); err != nil {
		return nil, podArgs{}, types.NewError(types.ErrDecodingFailure, "reading the network configuration", err.Error())
	}
	if conf.ExcludeNamespaces == nil {
		conf.ExcludeNamespaces = DefaultExclude
	}
	if err := version.ParsePrevResult(&conf.PluginConf); err != nil {
		return nil, podArgs{}, types.NewError(types.ErrDecodingFailure, "reading the earlier plugins' result", err.Error())
	}
	pod := podArgs{CommonArgs: types.CommonArgs{IgnoreUnknown: true}}
	if err := types.LoadArgs(args.Args, &pod); err != nil {
		return nil, podArgs{}, types.NewError(types.ErrInvalidEnvironmentVariables, "reading CNI_ARGS", err.Error())
	}
	return conf, pod, nil
}
