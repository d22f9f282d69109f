package zds

import (
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/ambit-mesh/ambit/internal/wire/zdspb"
)

func marshalRequest(r Request) ([]byte, error) {
	m := &zdspb.WorkloadRequest{}
	switch r.Kind {
	case Add:
		m.Payload = &zdspb.WorkloadRequest_Add{Add: &zdspb.AddWorkload{
			Uid: r.Pod.UID,
			WorkloadInfo: &zdspb.WorkloadInfo{
				Name: r.Pod.Name, Namespace: r.Pod.Namespace, ServiceAccount: r.Pod.ServiceAccount,
			},
		}}
	case Keep:
		m.Payload = &zdspb.WorkloadRequest_Keep{Keep: &zdspb.KeepWorkload{Uid: r.Pod.UID}}
	case Del:
		m.Payload = &zdspb.WorkloadRequest_Del{Del: &zdspb.DelWorkload{Uid: r.Pod.UID}}
	case SnapshotSent:
		m.Payload = &zdspb.WorkloadRequest_SnapshotSent{SnapshotSent: &zdspb.SnapshotSent{}}
	default:
		return nil, violation("no such request: %d", r.Kind)
	}
	return marshal(m)
}

func unmarshalRequest(b []byte) (Request, error) {
	var m zdspb.WorkloadRequest
	if err := proto.Unmarshal(b, &m); err != nil {
		return Request{}, violation("unreadable request: %v", err)
	}
	switch p := m.GetPayload().(type) {
	case *zdspb.WorkloadRequest_Add:
		i := p.Add.GetWorkloadInfo()
		r := Request{Kind: Add, Pod: Pod{
			UID: p.Add.GetUid(), Name: i.GetName(), Namespace: i.GetNamespace(), ServiceAccount: i.GetServiceAccount(),
		}}
		if r.Pod.UID == "" || r.Pod.Name == "" || r.Pod.Namespace == "" || r.Pod.ServiceAccount == "" {
			return Request{}, violation("add without uid or workload info")
		}
		return r, nil
	case *zdspb.WorkloadRequest_Keep:
		return uidRequest(Keep, p.Keep.GetUid())
	case *zdspb.WorkloadRequest_Del:
		return uidRequest(Del, p.Del.GetUid())
	case *zdspb.WorkloadRequest_SnapshotSent:
		return Request{Kind: SnapshotSent}, nil
	}
	return Request{}, violation("request without a known payload")
}

func uidRequest(k Kind, uid string) (Request, error) {
	if uid == "" {
		return Request{}, violation("%s without uid", k)
	}
	return Request{Kind: k, Pod: Pod{UID: uid}}, nil
}

func marshalAck(reason string) ([]byte, error) {
	// The other side reads into a fixed buffer; a long reason is cut.
	if len(reason) > maxMessage/2 {
		reason = strings.ToValidUTF8(reason[:maxMessage/2], "") + "…"
	}
	return marshal(&zdspb.WorkloadResponse{Payload: &zdspb.WorkloadResponse_Ack{Ack: &zdspb.Ack{Error: strings.ToValidUTF8(reason, "?")}}})
}

// unmarshalAck gives the nack's reason, empty for success.
func unmarshalAck(b []byte) (string, error) {
	var m zdspb.WorkloadResponse
	if err := proto.Unmarshal(b, &m); err != nil {
		return "", violation("unreadable response: %v", err)
	}
	if m.GetAck() == nil {
		return "", violation("response without an ack")
	}
	return m.GetAck().GetError(), nil
}

func marshalHello() ([]byte, error) { return marshal(&zdspb.ZdsHello{Version: zdspb.Version_V1}) }

// unmarshalHello accepts any version, as upstream's agent does: a newer
// ztunnel still speaks to us in the messages we know.
func unmarshalHello(b []byte) (version int32, err error) {
	var m zdspb.ZdsHello
	if err := proto.Unmarshal(b, &m); err != nil {
		return 0, violation("unreadable hello: %v", err)
	}
	return int32(m.GetVersion()), nil
}

func marshal(m proto.Message) ([]byte, error) {
	b, err := proto.Marshal(m)
	if err != nil {
		return nil, violation("marshalling: %v", err)
	}
	if len(b) > maxMessage {
		return nil, violation("message of %d bytes is larger than %d", len(b), maxMessage)
	}
	return b, nil
}
